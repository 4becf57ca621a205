"""How what a job holds becomes JSON and bytes that can be kept, and comes back as it was."""
