//! The way to identity providers, which tenants name: by [`Egress`] alone.

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::access::oidc::{Web, WebAnswer, WebError, WebRequest};

use crate::egress::{Egress, ExchangeError};

impl Web for Egress {
    fn send(&self, request: WebRequest) -> BoxFuture<'_, Result<WebAnswer, WebError>> {
        async move {
            let WebRequest {
                url,
                form,
                authorization,
            } = request;
            let sent = self.exchange(&url, |http, url| {
                let request = match &form {
                    None => http.get(url),
                    Some(pairs) => http.post(url).form(pairs),
                };
                let request = request.header("accept", "application/json");
                match authorization {
                    None => request,
                    Some(value) => request.header("authorization", value),
                }
            });
            let answer = sent.await.map_err(failed)?;
            Ok(WebAnswer {
                status: answer.status,
                location: answer.location,
                body: answer.body,
            })
        }
        .boxed()
    }
}

fn failed(error: ExchangeError) -> WebError {
    match error {
        ExchangeError::Refused(refused) => WebError::Refused(refused.to_string()),
        ExchangeError::Unresolved => WebError::Unresolved,
        ExchangeError::Unreachable(why) => WebError::Unreachable(why),
        ExchangeError::TooLong => WebError::TooLong,
    }
}
