//! Closing and opening cells: field keys, row keys, bodies, grants and keystores.
