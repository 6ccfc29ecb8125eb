"""What commands do, by command; the scripts beside this folder are their doors."""
