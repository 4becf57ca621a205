"""What runs jobs: the only threads, clocks and calls of user code in the library.

A `Flow` compiles its graph into a plan and makes a `Job` of it: the record of the job, its lock, and the threads that
work on it. A thread takes a ready mailbox from the job and takes turns for it, a `Turn` for each batch: it starts the
next activation, calls the handler, and commits what the handler did to the record, which lists the mailboxes that
this makes ready. A thread that finds nothing to do sleeps until another one rings for it. The thread whose commit
leaves nothing outstanding wakes everyone who waits for the job.
"""
