//! What every request of the operators' listener has: an id, taken from `X-Request-Id` or made, that stands in the
//! answer, in problems and in the log; and its line in the log.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body;
use tokio::time::Instant;
use tracing::Span;
use uuid::Uuid;

use crate::api::problem::Problem;
use crate::caller::Caller;
use crate::metrics::{Metrics, method_name};
use crate::traces;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Requests are answered within this.
const ANSWER: Duration = Duration::from_secs(30);
/// A longer one is not taken over.
const ID_CHARS: usize = 64;
/// A path in the log is cut here.
const PATH_CHARS: usize = 512;

tokio::task_local! {
    static ID: String;
}

/// Answers a request that came as a whole within [`ANSWER`]; a body may take longer, and has a limit of its own.
pub async fn in_time(request: Request, next: Next) -> Response {
    let is_whole = request.body().is_end_stream();
    let work = next.run(request);
    if !is_whole {
        return work.await;
    }
    let late = |_| Problem::unavailable(format!("no answer within {ANSWER:?}")).into_response();
    tokio::time::timeout(ANSWER, work)
        .await
        .unwrap_or_else(late)
}

/// Left in an answer by the route that made it.
#[derive(Clone, Debug)]
pub struct Answered {
    pub route: &'static str,
    pub caller: Option<Caller>,
}

/// The id of the request that this task answers; outside of any, one of its own.
pub fn current_id() -> String {
    ID.try_with(Clone::clone)
        .unwrap_or_else(|_| Uuid::new_v4().to_string())
}

/// `work` under the id of the request that this task answers, for a task of its own.
pub fn under_this_id<F: Future>(work: F) -> impl Future<Output = F::Output> {
    ID.scope(current_id(), work)
}

/// A request's head, as far as it is logged.
#[derive(Debug)]
pub struct Asked {
    id: String,
    method: Method,
    path: String,
    started: Instant,
    span: Span,
}

impl Asked {
    /// Reads it off a request. A query may hold what is nobody's business, so it stays out.
    pub fn of<B>(request: &http::Request<B>) -> Self {
        let (method, headers) = (request.method(), request.headers());
        let id = id(headers);
        let path: String = request.uri().path().chars().take(PATH_CHARS).collect();
        Self {
            span: traces::request(method, &path, headers, &id),
            id,
            method: method.clone(),
            path,
            started: Instant::now(),
        }
    }

    /// Has `work` done under the request's id; counts and logs what came of it.
    pub async fn answer(self, metrics: &Metrics, work: impl Future<Output = Response>) -> Response {
        let span = self.span.clone();
        let work = ID.scope(self.id.clone(), work);
        traces::within(span, work.map(|response| self.answered(metrics, response))).await
    }

    fn answered(self, metrics: &Metrics, mut response: Response) -> Response {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let answered = response.extensions().get::<Answered>();
        let route = answered.map_or("none", |answered| answered.route);
        let took = self.started.elapsed();
        traces::is_answered_by(
            &self.method,
            answered.map(|answered| answered.route),
            answered.and_then(|answered| answered.caller.as_ref()),
            response.status(),
        );
        metrics.request(
            "operators",
            method_name(&self.method),
            route,
            response.status(),
            took,
        );
        self.log(&response, answered, route, took);
        response
    }

    fn log(
        &self,
        response: &Response,
        answered: Option<&Answered>,
        route: &'static str,
        took: Duration,
    ) {
        let caller = answered.and_then(|answered| answered.caller.as_ref());
        let status = response.status().as_u16();
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    request_id = self.id,
                    user = caller.map(|caller| caller.name.as_str()),
                    role = caller.map(Caller::role_name),
                    method = %self.method,
                    route,
                    path = self.path,
                    status,
                    duration_ms,
                    "request"
                )
            };
        }
        // Asked for all the time, by machines and by open pages.
        if response.status().is_success() && self.method.is_safe() {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

/// The client's id where it is one, else one of our own.
fn id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_id = |id: &&str| {
        let plain = |char: char| char.is_ascii_alphanumeric() || "-_.:/+=".contains(char);
        !id.is_empty() && id.len() <= ID_CHARS && id.chars().all(plain)
    };
    given
        .filter(is_id)
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware;
    use axum::routing::any;
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_whole_request_that_is_not_answered_in_time_is_given_up() {
        let never = any(std::future::pending::<()>);
        let router = Router::new()
            .route("/", never)
            .layer(middleware::from_fn(in_time));
        let ask = |body: Body| router.clone().oneshot(Request::new(body));
        let began = Instant::now();
        let given_up = ask(Body::empty()).await.unwrap();
        assert_eq!(given_up.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(began.elapsed().as_secs(), ANSWER.as_secs());
        // What is sent with a body is held to that body's limits instead.
        let with_body = tokio::time::timeout(2 * ANSWER, ask(Body::from("a=b"))).await;
        assert!(with_body.is_err());
    }

    fn taken(given: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(
            REQUEST_ID,
            HeaderValue::from_bytes(given.as_bytes()).unwrap(),
        );
        id(&headers) == given
    }

    #[test]
    fn an_id_is_taken_over_where_it_can_stand_in_a_log() {
        assert!(taken("0af7651916cd43dd8448eb211c80319c"));
        assert!(taken(&"x".repeat(ID_CHARS)));
        let long = "x".repeat(ID_CHARS + 1);
        for bad in ["", "a b", "a\"b", "ä", &long] {
            assert!(!taken(bad), "{bad}");
        }
    }
}
