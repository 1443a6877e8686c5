"""From the tables of finished runs to pages: collect, score, decide, draw."""
