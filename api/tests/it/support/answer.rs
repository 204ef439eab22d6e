//! What a request was answered.

use reqwest::{RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use testbed::eventually;

/// A response, with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// The body if it is JSON, else `null`.
    pub(crate) json: Value,
}

impl Answer {
    /// Asserts the status, and shows the body if it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Asserts that it is a complete problem document with this code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: StatusCode, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json["code"], code, "{}", answer.json);
        assert_eq!(answer.json["status"], status.as_u16());
        assert_eq!(answer.json["type"], format!("/problems/{}", code.replace('_', "-")));
        assert_eq!(answer.json["request_id"].as_str(), answer.header("x-request-id"));
        for member in ["title", "detail", "instance"] {
            assert!(answer.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}");
        }
        answer
    }

    /// The errors of a 422 as `pointer code`, sorted.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<String> {
        let fault = |fault: &Value| {
            let text = |name: &str| fault[name].as_str().expect("a text").to_owned();
            format!("{} {}", text("pointer"), text("code"))
        };
        let mut faults: Vec<String> =
            self.json["errors"].as_array().expect("a list of faults").iter().map(fault).collect();
        faults.sort();
        faults
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }
}

/// Sends a request and reads the answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await
}

/// The first answer that is no 503: on a busy machine Redis, the cache or PostgreSQL may be late, and a client asks again.
pub(crate) async fn until_available(ask: impl AsyncFn() -> Answer) -> Answer {
    eventually("it is available", async || {
        let answer = ask().await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE { Err(answer) } else { Ok(answer) }
    })
    .await
}

async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.expect("a whole body").to_vec();
    testbed::assert_without_decoy(&String::from_utf8_lossy(&bytes));
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, headers, bytes, json }
}
