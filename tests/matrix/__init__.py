"""Does it install and work? One environment after another, by Python and by the age of the packages (`make matrix`)."""
