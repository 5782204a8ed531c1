//! Who calls the operators' listener, as the guard before each route found out, and what that allows.

use std::net::IpAddr;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::api::{idempotency, requests};
use crate::audit::{Actor, ActorKind};
use crate::roles::{Access, Role, Route, Scope, routes};

/// Who proved who they are within this may do what matters most.
pub const STEP_UP: Duration = Duration::minutes(10);

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    pub kind: ActorKind,
    /// Of the user or token; the name where it has no other.
    pub id: String,
    pub name: String,
    /// `None`: only what the scopes allow.
    pub role: Option<Role>,
    pub scopes: Vec<Scope>,
    /// Of a token whose runs are of one repository.
    pub repository: Option<String>,
    pub address: IpAddr,
    /// Of a browser that is logged in.
    pub session: Option<Session>,
}

/// What the guard knows of a session.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: Uuid,
    /// What a form or `X-CSRF-Token` has to say.
    pub csrf: String,
    pub authenticated_at: OffsetDateTime,
    /// Before all else they choose a password of their own.
    pub must_change_password: bool,
}

impl Caller {
    /// Whether the table lets this caller through.
    pub fn may(&self, route: &Route) -> bool {
        match route.access {
            Access::Public => true,
            Access::Role(needed) => {
                let by_scope = route
                    .scope
                    .is_some_and(|scope| self.scopes.contains(&scope));
                by_scope || self.role.is_some_and(|role| role >= needed)
            }
        }
    }

    /// Whether the table lets this caller through to the route of that method and path, as it stands in the table.
    pub fn may_call(&self, method: &str, path: &str) -> bool {
        let mut routes = routes().iter();
        routes.any(|route| route.method == method && route.path == path && self.may(route))
    }

    /// Whether what was proved is old. Tokens and trusted proxies prove it with every request.
    pub fn has_to_step_up(&self, now: OffsetDateTime) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| now - session.authenticated_at > STEP_UP)
    }

    /// Whether somebody else gave them the password that they logged in with.
    pub fn must_change_password(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.must_change_password)
    }

    /// What the role is called, or the scopes where there is none.
    pub fn role_name(&self) -> &'static str {
        let scope = self.scopes.first().map(|scope| scope.name());
        self.role.map(Role::name).or(scope).unwrap_or("none")
    }

    /// For a form's hidden field; empty where none is needed.
    pub fn csrf(&self) -> &str {
        self.session.as_ref().map_or("", |session| &session.csrf)
    }

    /// For the audit log.
    pub fn actor(&self) -> Actor {
        Actor {
            kind: self.kind,
            name: self.name.clone(),
            id: Some(self.id.clone()),
            address: Some(self.address),
            request_id: Some(requests::current_id()),
            claim: idempotency::current_claim(),
        }
    }
}
