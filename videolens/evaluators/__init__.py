"""Other people's evaluation tools, asking a model of ours with interventions attached."""
