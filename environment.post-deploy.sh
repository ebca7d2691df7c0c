# Snakemake runs this, where it was called, in the environment that --sdm conda has made of environment.yml.
pip install --no-deps -e .
