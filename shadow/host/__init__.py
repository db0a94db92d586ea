"""What a process knows of the machine that it runs on: who it is, who else lives, how time passes."""
