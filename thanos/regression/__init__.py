"""Golden metrics: what the regression suite measured when it was right, and what it measures now.

`measured` reads finished runs, `golden` the values to hold, `compare` judges, `render` writes.
"""
