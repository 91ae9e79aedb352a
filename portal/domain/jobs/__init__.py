"""Jobs: what is asked for, who may take it, handing it out, what the runner reports of it, its log and artifacts."""
