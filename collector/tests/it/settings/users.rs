//! Users, sessions and roles: what a role does not show it does not allow either.

use http::StatusCode;
use infratrack_collector::roles::routes;
use time::Duration;

use super::{Browser, PASSWORD};
use crate::harness::Collector;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_navigation_is_refused() {
    let collector = Collector::start().await;
    for (role, places) in [("viewer", 7), ("lead", 7), ("admin", 10)] {
        let browser = Browser::of(&collector, role, role).await;
        let page = browser.get("/settings/account").await;
        page.is(StatusCode::OK).has("name and password");
        let shown = page
            .between("aria-label=\"Settings\"", "</nav>")
            .matches("<a href=")
            .count();
        assert_eq!(shown, places, "{role}: {}", page.text);
        for address in [
            "/settings/users",
            "/settings/users/_new",
            "/settings/tokens",
            "/settings/tokens/new",
            "/settings/enrollment",
            "/settings/enrollment/new",
        ] {
            let answer = browser.get(address).await;
            if role == "admin" {
                answer.is(StatusCode::OK);
            } else {
                answer.is(StatusCode::FORBIDDEN);
                page.lacks(&format!("href=\"{address}\""));
            }
        }
        for address in [
            "/settings/users",
            "/settings/tokens",
            "/settings/enrollment",
        ] {
            if role != "admin" {
                browser.post(address, &[]).await.is(StatusCode::FORBIDDEN);
            }
        }
        let audit = browser.get("/audit").await;
        let may = role != "viewer";
        assert_eq!(audit.status == StatusCode::OK, may);
        assert_eq!(page.text.contains("href=\"/audit\""), may);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_made_changed_and_deleted_by_who_sees_them_as_they_are() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    let new = [
        ("name", "Bob"),
        ("role", "viewer"),
        ("password", PASSWORD),
        ("keep", "true"),
    ];
    admin
        .post("/settings/users", &new)
        .await
        .sends_to("/settings/users");
    let again = admin.post("/settings/users", &new).await;
    again
        .is(StatusCode::CONFLICT)
        .has("There is a user bob already")
        .has("value=\"Bob\"")
        .lacks(PASSWORD);
    let short = [("name", "eve"), ("role", "viewer"), ("password", "short")];
    admin
        .post("/settings/users", &short)
        .await
        .is(StatusCode::UNPROCESSABLE_ENTITY)
        .has("12 characters");

    let page = admin.get("/settings/users/bob").await;
    let tag = page
        .between("name=\"tag\" value=\"", "\"")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"");
    let change = async |fields: &[(&str, &str)]| admin.post("/settings/users/bob", fields).await;
    change(&[("action", "role"), ("role", "lead"), ("tag", &tag)])
        .await
        .sends_to("/settings/users");
    let late = change(&[("action", "role"), ("role", "admin"), ("tag", &tag)]).await;
    late.is(StatusCode::PRECONDITION_FAILED)
        .has("It was changed since");
    admin.get("/settings/users").await.has("<td>lead</td>");

    let bob = Browser::log_in(&collector, "bob", PASSWORD).await.unwrap();
    change(&[("action", "disable"), ("tag", "*")])
        .await
        .sends_to("/settings/users");
    assert_eq!(
        bob.get("/settings/account").await.status,
        StatusCode::SEE_OTHER
    );
    assert!(Browser::log_in(&collector, "bob", PASSWORD).await.is_none());
    admin.get("/settings/users").await.has("disabled");
    change(&[("action", "enable"), ("tag", "*")])
        .await
        .sends_to("/settings/users");
    change(&[("action", "delete")])
        .await
        .sends_to("/settings/users");
    admin
        .get("/settings/users/bob")
        .await
        .is(StatusCode::NOT_FOUND);
    let last = admin
        .post("/settings/users/ada", &[("action", "delete")])
        .await;
    last.is(StatusCode::CONFLICT)
        .has("last user with the role admin");
    change(&[("action", "anything")])
        .await
        .is(StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_matters_asks_for_the_proof_before_it_is_filled_in() {
    let collector = Collector::start().await;
    let admin = Browser::of(&collector, "ada", "admin").await;
    collector.clock.advance(Duration::minutes(11));
    for form in [
        "/settings/users/_new",
        "/settings/tokens/new",
        "/settings/enrollment/new",
    ] {
        let to = format!("/step-up?next={}", form.replace('/', "%2F"));
        admin.get(form).await.sends_to(&to);
    }
    admin.get("/settings/users").await.is(StatusCode::OK);
    let fields = [("password", PASSWORD), ("next", "/settings/users/_new")];
    admin
        .post("/step-up", &fields)
        .await
        .sends_to("/settings/users/_new");
    admin.get("/settings/users/_new").await.is(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_ended_by_who_may() {
    let collector = Collector::start().await;
    let ada = Browser::of(&collector, "ada", "viewer").await;
    let bob = Browser::of(&collector, "bob", "viewer").await;
    let second = Browser::log_in(&collector, "ada", PASSWORD).await.unwrap();
    let page = ada.get("/settings/sessions").await;
    page.has("this one").lacks("bob");
    let of_bob = bob.get("/settings/sessions").await;
    let id = of_bob.between("action=\"/settings/sessions/", "/end\"");
    let id = if id == "end-others" {
        of_bob
            .text
            .split("action=\"/settings/sessions/")
            .nth(2)
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    } else {
        id.rsplit('/').next().unwrap().to_owned()
    };
    ada.post(&format!("/settings/sessions/{id}/end"), &[])
        .await
        .is(StatusCode::NOT_FOUND);
    ada.post("/settings/sessions/end-others", &[])
        .await
        .sends_to("/settings/sessions");
    assert_eq!(
        second.get("/settings/account").await.status,
        StatusCode::SEE_OTHER
    );
    bob.get("/settings/account").await.is(StatusCode::OK);
    let admin = Browser::of(&collector, "root", "admin").await;
    admin
        .get("/settings/sessions")
        .await
        .has("bob")
        .has("everybody's");
    admin
        .post(&format!("/settings/sessions/{id}/end"), &[])
        .await
        .sends_to("/settings/sessions");
    assert_eq!(
        bob.get("/settings/account").await.status,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_page_has_every_route_of_the_table() {
    let collector = Collector::start().await;
    let viewer = Browser::of(&collector, "ada", "viewer").await;
    let page = viewer.get("/settings/roles").await;
    for route in routes() {
        page.has(&format!("{} {}</code>", route.method, route.path));
    }
}
