"""What the outside may see of a running syncd: health, metrics, and one log line for each run and each delivery.

Pipelines return reports; ``Reporter`` turns each into counters and into its one canonical line, so that no pipeline
knows how it is watched. What is a state rather than an event (queue ages, coverage holes, pauses) is read from the
database when somebody asks, so that it is true however long the process has lived and whichever replica answers.

The pages (``server``) have no password and hold no secret and no address; they listen on loopback unless told.

Nothing is imported here: ``probe`` lives in this package too, and is started anew several times a minute.
"""
