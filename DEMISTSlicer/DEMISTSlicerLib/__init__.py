"""The parts of the DEMIST module for 3D Slicer, one class a file.

Importing the package costs nothing; nothing in it imports torch or MONAI into Slicer's process.
"""
