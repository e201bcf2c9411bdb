//! One operation of the API: how it is found, what it takes and answers, and who does it. The router and the `OpenAPI` document
//! are both made from the same list of these, so they cannot say different things.

use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Context;

/// Writes down the shape of a type.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// What a success looks like.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// JSON.
    Json(Shape),
    /// One JSON value per line, until somebody hangs up.
    Lines(Shape),
    /// Text of a media type.
    Text(&'static str),
    /// No body.
    Nothing,
}

/// One method of one path.
pub(super) struct Operation {
    /// The method.
    pub(super) method: Method,
    /// The path, `{name}` for a parameter.
    pub(super) path: &'static str,
    /// Its name, unique, for generated clients and for the audit log.
    pub(super) name: &'static str,
    /// What it does, in one sentence.
    pub(super) summary: &'static str,
    /// Whether it is served without token.
    pub(super) open: bool,
    /// The body it takes.
    pub(super) takes: Option<Shape>,
    /// Whether it minds `If-Match` and answers with an `ETag`.
    pub(super) revised: bool,
    /// The status of a success.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) answer: Answer,
    /// Statuses of failures beside those that every operation of its kind has.
    pub(super) fails: Vec<StatusCode>,
    /// Who does it.
    pub(super) handler: MethodRouter<Context>,
}

impl Operation {
    /// An operation that answers 204 until told otherwise.
    pub(super) fn new<H, T>(
        method: Method,
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Context>,
        T: 'static,
    {
        // Every method of the table is one of those a filter knows; the test of the table makes sure.
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        Self {
            method,
            path,
            name,
            summary,
            open: false,
            takes: None,
            revised: false,
            status: StatusCode::NO_CONTENT,
            answer: Answer::Nothing,
            fails: Vec::new(),
            handler: on(filter, handler),
        }
    }

    /// Served without token.
    pub(super) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Takes a JSON body.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Changes the configuration: minds `If-Match`, and answers with the revision as `ETag`.
    pub(super) fn revised(mut self) -> Self {
        self.revised = true;
        self
    }

    /// Answers with JSON.
    pub(super) fn answers<T: JsonSchema>(mut self, status: StatusCode) -> Self {
        self.status = status;
        self.answer = Answer::Json(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Answers with one JSON value per line.
    pub(super) fn streams<T: JsonSchema>(mut self) -> Self {
        self.status = StatusCode::OK;
        self.answer = Answer::Lines(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Answers with text.
    pub(super) fn text(mut self, media_type: &'static str) -> Self {
        self.status = StatusCode::OK;
        self.answer = Answer::Text(media_type);
        self
    }

    /// Fails with these as well.
    pub(super) fn fails(mut self, statuses: &[StatusCode]) -> Self {
        self.fails.extend_from_slice(statuses);
        self
    }

    /// Whether it changes anything.
    pub(super) fn mutates(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Every status it may answer, in order.
    pub(super) fn statuses(&self) -> Vec<StatusCode> {
        let mut statuses = vec![self.status, StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR];
        statuses.extend_from_slice(&self.fails);
        if !self.open {
            statuses.push(StatusCode::UNAUTHORIZED);
        }
        if self.path.contains('{') || self.takes.is_some() {
            statuses.push(StatusCode::BAD_REQUEST);
        }
        // Any request may carry a body; one that is not wanted is bounded just the same.
        statuses.push(StatusCode::PAYLOAD_TOO_LARGE);
        if self.takes.is_some() {
            statuses.extend([StatusCode::REQUEST_TIMEOUT, StatusCode::UNSUPPORTED_MEDIA_TYPE]);
        }
        if self.revised {
            statuses.extend([StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED]);
        }
        statuses.sort();
        statuses.dedup();
        statuses
    }
}
