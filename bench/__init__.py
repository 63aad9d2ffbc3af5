"""The benchmarks: events per second of a real server and periods closed per second, beside what this machine
could do at best.

owns            the load generator, the month that is closed, the ceilings, the reports
does not own    any product code: it talks HTTP, runs the `tallystick` command or calls the flows, and reads /proc
promises        every number is measured in the run that prints it; an unexpected answer is an error with
                a sample and makes the run fail; how fast the machine is never does
"""
