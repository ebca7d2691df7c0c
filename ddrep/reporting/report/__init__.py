"""report.html: what an experiment found, as one page that needs nothing else."""
