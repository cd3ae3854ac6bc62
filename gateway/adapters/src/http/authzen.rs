//! The decision door.
use super::worker::WorkerPlane;
use axum::Router;
use std::sync::Arc;
/// The routes.
pub fn routes() -> Router<Arc<WorkerPlane>> { Router::new() }
