"""One self-contained page of all results: tables that sort, figures, masks, and the source records of every number."""
