//! Replication as messages, without a network.
