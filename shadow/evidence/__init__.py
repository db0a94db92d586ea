"""`shadow evidence`: what a change board sees before a flip, on one page.

    model      what is on it
    collect    reads it: the fleet's record, jobs, receipts, and what was compared by hour
    plots      rates by hour
    page       the page

No value of a document is in any of it.
"""
