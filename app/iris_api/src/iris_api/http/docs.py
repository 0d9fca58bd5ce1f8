"""The documentation page: Swagger UI without a content delivery network and without inline scripts."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

# All links are relative: the page works under whatever prefix a gateway puts it.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The same in JSON: <a href="openapi.json">openapi.json</a></noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  // Without the user and password that the page's own address may carry: fetch refuses such an address.
  url: new URL("openapi.json", location.origin + location.pathname).href,
  dom_id: "#swagger-ui",
  docExpansion: "full",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
});
"""
# Swagger UI has images in its style sheet; apart from them the page may load nothing that is not here.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install(app: FastAPI) -> None:
    """Add /docs and the files it loads, which come with the package fastapi-swagger."""
    page = HTMLResponse(_PAGE.format(title=app.title), headers={"Content-Security-Policy": _POLICY})
    start = Response(_START, media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return page

    @app.get("/docs/start.js", include_in_schema=False)
    async def start_script() -> Response:
        return start

    app.mount("/docs", StaticFiles(packages=[("fastapi_swagger", "resources")]))
