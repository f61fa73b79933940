//! The telemetry upload: limits, then who it is, then room, and only then the body.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use muster_channel_agent::{
    codec::ContentType,
    limits::{TELEMETRY_BODY_BYTES_MAX, TELEMETRY_INFLATED_BYTES_MAX, TELEMETRY_RATIO_MAX},
    telemetry::{BatchError, ContentEncoding, TelemetryBatch, decode_batch},
};
use muster_control::{
    access::problem::{
        BODY_TOO_LARGE, DEVICE_BLOCKED, EPOCH_MISMATCH, INTERNAL, MALFORMED, Problem, UNSUPPORTED_MEDIA_TYPE,
    },
    commands,
    devices::DeviceState,
    telemetry::{self, Sender},
};

use crate::{Gateway, Peer, identity::known_peer, wire};

/// What the smallest batch is taken to need while it is read.
const ROOM_BYTES_MIN: usize = 16 * 1024;
/// A body from here on is read on a thread for what takes time.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// `POST /agent/v1/telemetry`
pub async fn telemetry(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    take(&gateway, request).await.inspect_err(|problem| {
        let is_busy = matches!(problem.kind.status, 429 | 503);
        let result = if is_busy { "turned_away" } else { "refused" };
        gateway.app.telemetry.metrics.batch(result);
    })
}

async fn take(gateway: &Gateway, request: Request) -> Result<Response, Problem> {
    let app = &gateway.app;
    let peer = request.extensions().get::<Peer>().cloned();
    let known = known_peer(app, peer.as_ref()).await?;
    let (tenant, device) = (known.identity.tenant, known.identity.device);
    let (content_type, answer_as) = wire::types(request.headers())?;
    let encoding = encoding(request.headers())?;
    let announced = wire::announced(request.headers()).unwrap_or(TELEMETRY_BODY_BYTES_MAX);
    let room = telemetry::admit(app, tenant, device, (announced, room_for(announced, encoding)))?;
    let body = wire::body(request, TELEMETRY_BODY_BYTES_MAX).await?;
    // A client decides how long its body takes.
    let known = known_peer(app, peer.as_ref()).await?;
    if known.identity.state != DeviceState::Active {
        return Err(DEVICE_BLOCKED.detail("The device is in quarantine; nothing of it is kept."));
    }
    let sender = Sender {
        tenant,
        device,
        epoch: known.identity.epoch,
        clock_offset: known.seat.clock_offset(),
    };
    let (now, days) = (app.clock.now(), app.settings.telemetry_retention_days);
    let (is_long, is_traced) = (body.len() > INLINE_BYTES_MAX, app.traces.is_on());
    let prepare = move || {
        let batch = read(content_type, encoding, &body, sender.epoch)?;
        let spans = if is_traced {
            batch.spans.clone()
        } else {
            Vec::new()
        };
        Ok::<_, Problem>((telemetry::prepare(&sender, batch, now, days), spans))
    };
    let (batch, spans) = if is_long {
        tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|error| INTERNAL.detail("The batch was not read.").caused_by(error))??
    } else {
        prepare()?
    };
    let clock_offset = batch.clock_offset;
    let taken = telemetry::write(app, tenant, batch, room).await?;
    if taken.is_new && !spans.is_empty() {
        // The batch is taken: its spans are lost at most.
        let told = commands::take_spans(app, tenant, device, spans, clock_offset).await;
        if let Err(problem) = told {
            tracing::warn!(%problem, "the spans of a device were not taken");
        }
    }
    wire::answer(StatusCode::OK, answer_as, &telemetry::answer(app, taken))
}

fn encoding(headers: &HeaderMap) -> Result<ContentEncoding, Problem> {
    let text = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str());
    text.transpose()
        .ok()
        .and_then(ContentEncoding::from_header)
        .ok_or_else(|| UNSUPPORTED_MEDIA_TYPE.detail("Send the batch as it is, or compressed with gzip."))
}

/// What a body of so many bytes may need when it is read.
fn room_for(bytes: usize, encoding: ContentEncoding) -> usize {
    let inflated = match encoding {
        ContentEncoding::Identity => bytes,
        ContentEncoding::Gzip => bytes.saturating_mul(TELEMETRY_RATIO_MAX),
    };
    inflated.clamp(ROOM_BYTES_MIN, TELEMETRY_INFLATED_BYTES_MAX)
}

fn read(
    content_type: ContentType,
    encoding: ContentEncoding,
    body: &[u8],
    epoch: u32,
) -> Result<TelemetryBatch, Problem> {
    let batch = decode_batch(content_type, encoding, body).map_err(|error| match &error {
        BatchError::TooLarge { .. } => BODY_TOO_LARGE.detail(wire::short(&error.to_string())),
        BatchError::Compression(_) | BatchError::Decode(_) | BatchError::Limit(_) => {
            MALFORMED.detail(wire::short(&error.to_string()))
        }
    })?;
    if batch.epoch != epoch {
        return Err(EPOCH_MISMATCH.detail("The batch names another enrollment than the certificate."));
    }
    Ok(batch)
}
