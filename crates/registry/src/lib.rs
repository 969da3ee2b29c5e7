//! The use cases of a node, each a straight line.
