"""The benchmark: events per second of a real server, beside what this machine could do at best.

owns            the load generator, the three ceilings, the report
does not own    any product code: it talks HTTP, runs the `tallystick` command and reads /proc
promises        every number is measured in the run that prints it; an unexpected answer is an error with
                a sample and makes the run fail; how fast the machine is never does
"""
