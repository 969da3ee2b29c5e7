//! libp2p carries sync's messages between nodes that know each other's charters.
