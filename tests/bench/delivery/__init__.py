"""What one API process on one core delivers: the load, the servers it is put on, and the lines."""
