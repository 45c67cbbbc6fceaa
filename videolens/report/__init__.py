"""Reports: figures and pages, drawn from results that are already computed."""
