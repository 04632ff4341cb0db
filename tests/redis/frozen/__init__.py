"""Copies of formats that processes in production speak: never changed, whatever the code beside them becomes."""
