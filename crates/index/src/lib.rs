//! Finding records over the attributes that this node may read.
