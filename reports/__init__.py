"""Tables, plots and pages made from datasets and run folders."""
