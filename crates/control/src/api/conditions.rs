//! How configured objects fare, as it is shown.

use std::time::SystemTime;

use hms_model::resource::{Resource, ResourceKey};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use super::certificates::written;
use crate::conditions::{self, Condition, Proxies, Status};
use crate::registry::{Age, View};

/// How an object fares.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ResourceStatus")]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusView {
    /// The revision of the configuration that the conditions are about: the one since which the object says what it says.
    observed_revision: u64,
    /// Connected proxies that it concerns.
    proxies: usize,
    /// Those of them that have it.
    programmed: usize,
    /// Whether it is accepted, whether what it refers to is there, whether every proxy that it concerns has it.
    conditions: Vec<ConditionView>,
}

/// One condition in the Gateway API's words.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Condition")]
#[serde(rename_all = "camelCase")]
struct ConditionView {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    #[serde(rename = "type")]
    about: &'static str,
    /// `True` or `False`.
    status: &'static str,
    /// Why, in one word: the type itself where it is true.
    reason: &'static str,
    /// Why, in words.
    message: String,
    /// When what decides it last changed (RFC 3339).
    last_transition_time: String,
}

/// What is known at one moment, for many objects.
pub(super) struct Looking<'a> {
    context: &'a Context,
    view: &'a View,
    proxies: Proxies,
    now: (Instant, SystemTime),
}

impl<'a> Looking<'a> {
    /// At a view, now.
    pub(super) fn at(context: &'a Context, view: &'a View) -> Self {
        let proxies = Proxies::new(context.parts().live.reaches());
        Self { context, view, proxies, now: (Instant::now(), context.parts().clock.now()) }
    }

    /// How a resource of the view fares.
    pub(super) fn status(&self, key: &ResourceKey, resource: &Resource) -> StatusView {
        let registry = &self.context.parts().registry;
        // One that is gone meanwhile is as it was in this view.
        let this = Age { config: self.view.config, shown: self.view.revision, at: self.now.0 };
        let age = registry.age(key).unwrap_or(this);
        let touched = |service: &_| registry.touched(service);
        let Status { observed, proxies, programmed, conditions } =
            conditions::of(self.view, &self.proxies, resource, age, touched);
        let conditions = conditions.into_iter().map(|condition| self.condition(condition)).collect();
        StatusView { observed_revision: observed.0, proxies, programmed, conditions }
    }

    fn condition(&self, condition: Condition) -> ConditionView {
        let (instant, time) = self.now;
        let ago = instant.saturating_duration_since(condition.since);
        ConditionView {
            about: condition.about.as_str(),
            status: if condition.fault.is_none() { "True" } else { "False" },
            reason: condition.reason(),
            message: condition.message,
            last_transition_time: written(time.checked_sub(ago).unwrap_or(time)),
        }
    }
}
