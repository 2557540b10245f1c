//! The pages of whoever runs the server: metrics, alive, ready.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

use super::Shared;
use crate::config::ByteSize;
use crate::db::{self, outbox};
use crate::store::IMAGE_BYTES_EXPECTED;
use crate::store::PlaceState;
use crate::telemetry::event::Chain;
use crate::telemetry::health::{self, Check};
use crate::telemetry::metric::{BucketSample, Owed, Sample};

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let sample = shared.sample().await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], shared.telemetry.metrics.page(&sample))
}

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server can do its work, with every check and how to mend it.
pub(super) async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let checks = shared.checks().await;
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks: Vec<_> =
        checks.into_iter().map(|check| json!({ "name": check.name, "ok": check.ok, "detail": check.detail })).collect();
    (status, Json(json!({ "ready": ready, "checks": checks })))
}

impl Shared {
    /// What the server is now.
    async fn sample(&self) -> Sample {
        let owed = match self.db.read(outbox::owed_counts).await {
            Ok(counts) => Some(Owed {
                puts: counts.puts_owed,
                puts_held: counts.puts_held,
                deliveries: counts.deliveries_owed,
                deliveries_dead: counts.deliveries_dead,
                delivery_oldest_age: counts.oldest_owed.map(|made| self.clock.wall().since(made)).unwrap_or_default(),
            }),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "what is owed could not be counted");
                None
            }
        };
        let buckets = self.storer.places().await.unwrap_or_default();
        let buckets = buckets.into_iter().map(|place| BucketSample {
            is_taking: place.state == PlaceState::Taking,
            owed: place.owed.pictures,
            store: place.store,
            bucket: place.bucket,
        });
        let counts = self.lives.totals();
        let (live, in_grace) = self.lives.population();
        let workers = self.workers.workers();
        Sample {
            due: counts.due,
            taken: counts.taken,
            skipped: counts.skipped_by_reason().map(|(reason, count)| (reason.name(), count)).collect(),
            open: counts.open,
            live_streams: live,
            streams_in_grace: in_grace,
            connections: self.rtmp.connections() as u64,
            keyframe_bytes: self.keyframes.bytes(),
            picks_queued: self.pipeline.queued() as u64,
            picks_queued_bytes: self.pipeline.queued_bytes(),
            commit_bytes: self.pipeline.committing_bytes(),
            reassembly_bytes: self.rtmp.reassembly_bytes(),
            spool_bytes: self.spool.bytes(),
            disk_free_bytes: self.spool.disk_free_bytes(),
            owed,
            buckets: buckets.collect(),
            workers_ready: workers.iter().filter(|worker| worker.ready).count() as u64,
            worker_restarts: workers.iter().map(|worker| worker.restarts).sum(),
            db: self.db.stats(),
            catalog_version: self.catalog.borrow().version(),
            certificate_days: self
                .certificates
                .as_ref()
                .and_then(|certificates| certificates.days_left(self.clock.wall())),
        }
    }

    async fn checks(&self) -> Vec<Check> {
        let asked = self.clock.mono();
        let answered = self.db.read(db::is_alive).await;
        let took: Duration = self.clock.mono().since(asked);
        let workers = self.workers.workers();
        let mut checks = vec![
            health::database(answered.map(|()| took).map_err(|error| error.to_string())),
            health::workers(&workers),
            health::jail(&workers, self.jail_required),
            health::spool(self.spool.fits(IMAGE_BYTES_EXPECTED), ByteSize(self.spool.bytes()), self.spool_bytes_max),
            health::disk(
                self.spool.leaves_reserve(IMAGE_BYTES_EXPECTED),
                ByteSize(self.spool.disk_free_bytes()),
                self.disk_reserve,
            ),
        ];
        if let Some(certificates) = &self.certificates {
            let days_left = certificates.days_left(self.clock.wall());
            checks.push(health::certificate(days_left, certificates.problem().as_deref()));
        }
        checks
    }
}
