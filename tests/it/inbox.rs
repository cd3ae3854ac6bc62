//! The inbox worker.
