//! Web pages of a node.
