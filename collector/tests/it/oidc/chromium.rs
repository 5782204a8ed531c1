//! The login in a real browser, which keeps `SameSite=Strict` cookies back where another site began the way.

use infratrack_testkit::browser;

use super::rig::{Rig, SECRET};
use super::{collector_at, ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_another_site_sent_is_logged_in_at_the_end_of_the_way() {
    let rig = Rig::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = port.local_addr().unwrap();
    drop(port);
    // To browsers, `localhost` is another site than the provider's 127.0.0.1.
    let url = format!("http://localhost:{}", listen.port());
    let collector = collector_at(&url, &rig.issuer, SECRET, move |config| {
        config.operators.listen = listen;
    })
    .await;
    ready(&collector).await;
    let start = format!("{}/start?{url}/login/oidc?next=/hosts", rig.issuer);
    let page = browser::land(&start, "form[action='/logout']")
        .await
        .unwrap();
    assert_eq!(rig.hits("token"), 1, "{page}");
    assert!(page.contains("<title>The first host"), "{page}");
}
