"""One module for each kind of fault; `tests.stress` says what is in one."""
