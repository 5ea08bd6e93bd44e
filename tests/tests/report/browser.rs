//! A browser without a screen, driven through WebDriver.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fantoccini::actions::{InputSource as _, MouseActions, PointerAction};
use fantoccini::wd::{TimeoutConfiguration, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, killpg};
use serde_json::{Value as Json, json};
use tcpprobe_tests::tools::Running;
use tokio::runtime::{Builder, Runtime};

const LIMIT: Duration = Duration::from_secs(30);
const STARTED: &str = "ChromeDriver was started successfully on port ";

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) scheme: &'static str,
}

pub(crate) const DESKTOP: Screen = Screen { width: 1280, height: 1400, scheme: "light" };

pub(crate) struct Browser {
    runtime: Runtime,
    client: Client,
    driver: Running,
    _profile: tempfile::TempDir,
}

/// A command of Chrome's own.
#[derive(Debug)]
struct Chrome(&'static str, Json);

impl WebDriverCompatibleCommand for Chrome {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.1.to_string()))
    }
}

impl Browser {
    /// Opens a page and waits until it has been drawn.
    pub(crate) fn open(page: &Path, screen: Screen) -> Result<Browser> {
        let mut driver = Running::start(Command::new("chromedriver").arg("--port=0").process_group(0))?;
        let said = driver.wait_for_stdout(STARTED, LIMIT)?;
        let port = said.trim_start_matches(STARTED).trim_end_matches('.').to_owned();
        let profile = tempfile::tempdir()?;
        // as root there is no sandbox
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(wanted.as_object().context("capabilities")?.clone());
            let client = builder.connect(&format!("http://127.0.0.1:{port}")).await?;
            client.update_timeouts(TimeoutConfiguration::new(Some(LIMIT), Some(LIMIT), None)).await?;
            anyhow::Ok(client)
        })?;
        let browser = Browser { runtime, client, driver, _profile: profile };
        let Screen { width, height, scheme } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        browser.cdp("Emulation.setDeviceMetricsOverride", metrics)?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.cdp("Emulation.setEmulatedMedia", features)?;
        browser.runtime.block_on(browser.client.goto(&format!("file://{}", page.display())))?;
        browser.until("document.getElementById('title').textContent")?;
        Ok(browser)
    }

    /// A command of the Chrome DevTools Protocol.
    fn cdp(&self, command: &str, parameters: Json) -> Result<Json> {
        let body = json!({ "cmd": command, "params": parameters });
        Ok(self.runtime.block_on(self.client.issue_cmd(Chrome("goog/cdp/execute", body)))?)
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&self, expression: &str) -> Result<Json> {
        let script = format!("return ({expression});");
        self.runtime.block_on(self.client.execute(&script, Vec::new())).with_context(|| expression.to_owned())
    }

    pub(crate) fn text(&self, selector: &str) -> Result<String> {
        let text = self.value(&format!("document.querySelector({}).textContent", json!(selector)))?;
        Ok(text.as_str().context("no text")?.to_owned())
    }

    /// Waits until an expression holds.
    pub(crate) fn until(&self, expression: &str) -> Result<()> {
        let script = format!(
            "const done = arguments[0];
const look = () => {{ if ({expression}) done(true); else requestAnimationFrame(look); }};
look();"
        );
        self.runtime.block_on(self.client.execute_async(&script, Vec::new())).with_context(|| expression.to_owned())?;
        Ok(())
    }

    /// Keys, wherever the focus is; those without a letter by their WebDriver code.
    pub(crate) fn keys(&self, keys: &str) -> Result<()> {
        self.runtime.block_on(async { self.client.active_element().await?.send_keys(keys).await })?;
        Ok(())
    }

    pub(crate) fn click(&self, selector: &str) -> Result<()> {
        self.runtime
            .block_on(async { self.client.find(fantoccini::Locator::Css(selector)).await?.click().await })
            .with_context(|| selector.to_owned())
    }

    /// Moves the mouse to the first place, and drags it to the second one, if there is one.
    pub(crate) fn mouse(&self, at: (f64, f64), drag_to: Option<(f64, f64)>) -> Result<()> {
        let to = |(x, y): (f64, f64)| PointerAction::MoveTo { duration: Some(Duration::from_millis(50)), x, y };
        let mut mouse = MouseActions::new("mouse".into()).then(to((at.0 - 1.0, at.1 - 1.0))).then(to(at));
        if let Some(end) = drag_to {
            let button = fantoccini::actions::MOUSE_BUTTON_LEFT;
            mouse = mouse.then(PointerAction::Down { button }).then(to(end)).then(PointerAction::Up { button });
        }
        Ok(self.runtime.block_on(self.client.perform_actions(mouse))?)
    }

    /// Fails where the page complained, or asked for anything but itself.
    pub(crate) fn is_clean(&self) -> Result<()> {
        let log = |kind| self.runtime.block_on(self.client.issue_cmd(Chrome("se/log", json!({ "type": kind }))));
        let console = log("browser")?;
        let entries = console.as_array().context("no log")?;
        // what the driver of the graphics card says is the browser's own
        let complaints: Vec<_> = entries.iter().filter(|e| e["source"] != "rendering").collect();
        ensure!(complaints.is_empty(), "{complaints:?}");
        let mut pages = 0;
        for entry in log("performance")?.as_array().context("no log")? {
            let event: Json = serde_json::from_str(entry["message"].as_str().context("no event")?)?;
            let asked = &event["message"]["params"];
            let address = |of: &Json| of.as_str().unwrap_or_default().to_owned();
            // the browser's own pages ask for things as well
            let by_page = address(&asked["documentURL"]).starts_with("file:");
            if event["message"]["method"] == "Network.requestWillBeSent" && by_page {
                let url = address(&asked["request"]["url"]);
                ensure!(["file:", "data:", "blob:"].iter().any(|own| url.starts_with(own)), "asked for {url}");
                pages += usize::from(url.starts_with("file:"));
            }
        }
        ensure!(pages == 1, "{pages} requests for files");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // without a driver the browser would stay: it is of the same group, whatever it is busy with
        let _ = killpg(self.driver.pid(), Signal::SIGKILL);
    }
}
