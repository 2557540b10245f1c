//! Fuzz targets as plain functions: hostile bytes in, panic only if one of our own promises is broken.
