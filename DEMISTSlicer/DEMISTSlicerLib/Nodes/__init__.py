"""Results as nodes of the MRML scene, and nodes as what the core computes with; no views, no processes."""
