"""What a routine is: its slots, events, configuration and policy, and how a payload becomes a call of a handler."""
