"""What Vercel's build serves of a file, and what it says nothing about."""

from __future__ import annotations

import pytest

from doow_serverless.local.vercel.entry_point import entry_point, problems

NOTHING = (
    "Vercel finds no entry point here, and makes no function of the file, without a word: define a "
    "class named handler, or app or application, at the top level"
)
NO_FUNCTION = "so Vercel makes no function of the file"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class handler(Base): ...", "handler"),
        ("@tracked\nclass Handler(Base): ...", "Handler"),
        ("class HANDLER(Base): ...", None),
        ("class Handler(Base): ...\n@tracked\nclass handler(Handler): ...", "Handler"),
        ("handler = tracked(Base)", None),
        ("handler: type = tracked(Base)", None),
        ("def handler(request): ...", None),
        ("from api import handler", None),
        ("from api import handler as app", "app"),
        ("from main import app as server", None),
        ("from main import server as app", "app"),
        ("import app", None),
        ("app = Flask(__name__)", "app"),
        ("app = 3", "app"),
        ("app: Flask = Flask(__name__)", "app"),
        ("wsgi = app = Flask(__name__)", "app"),
        ("app, other = both()", None),
        ("(app := Flask(__name__))", None),
        ("app.state = 1", None),
        ("@tracked\ndef app(environ, start_response): ...", "app"),
        ("async def application(scope, receive, send): ...", "application"),
        ("class app: ...", None),
        ("App = Flask(__name__)", None),
        ("if True:\n    app = Flask(__name__)", None),
        ("try:\n    class handler(Base): ...\nfinally: ...", None),
        ("application = Flask(__name__)\napp = Middleware(application)", "application"),
        ("app = Flask(__name__)\napp = Middleware(app)", "app"),
        ("app = Flask(__name__)\nclass handler(Base): ...", "app"),
        ("", None),
        ("class handler(Base:", None),
        ("app = 1\0", None),
    ],
)
def test_the_entry_point_is_that_of_the_build(source: str, found: str | None) -> None:
    """As @vercel/python-analysis 0.14.0 finds it, which every row has been tried with."""
    assert entry_point(source) == found


@pytest.mark.parametrize(
    "source",
    [
        "@doow.tracked\nclass handler(Base): ...",
        "class handler(Base): ...\nhandler = doow.tracked(handler)",
        "class Handler(Base): ...\nhandler = doow.tracked(Handler)",  # is done in place
        "class Handler(Base): ...\nother = Handler",
        "app = Flask(__name__)\napp.wsgi_app = DoowMiddleware(app.wsgi_app)",
        "app = FastAPI()\napp.add_middleware(DoowMiddleware)",
        "app = FastAPI()\napp = DoowMiddleware(app)",
        "app = FastAPI()\nmetered = DoowMiddleware(app)\napp = metered",
        "app = FastAPI()\napplication = app = DoowMiddleware(app)",
        "app = FastAPI()\napplication = app",
        "app = FastAPI()\nhandler = Mangum(app)",
        "app = FastAPI()\nclient = TestClient(app)",
        "app = FastAPI()\napplication: Any",
        "app = FastAPI()\napplication = DoowMiddleware(other)",
        "if DEBUG:\n    app = Flask(__name__)\nelse:\n    app = Quart(__name__)\napp = Wrap(app)",
        "@doow.tracked\ndef app(environ, start_response): ...",
    ],
)
def test_nothing_is_said_of_what_works(source: str) -> None:
    """Ways of tracking that are served as they are meant."""
    assert problems(source) == []


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "import doow\nclass MyApi(Base): ...\nhandler = doow.tracked(MyApi)",
            (
                "line 3: `handler = …` is no entry point, {}: decorate the class itself, with "
                "`@doow.tracked` above `class handler(…)`"
            ),
        ),
        (
            "Handler: type = doow.tracked(MyApi)",
            (
                "line 1: `Handler = …` is no entry point, {}: decorate the class itself, with "
                "`@doow.tracked` above `class Handler(…)`"
            ),
        ),
        (
            "\n@doow.tracked\ndef handler(request): ...",
            (
                "line 3: a function named handler is no entry point, {}: name a WSGI or ASGI "
                "application app; handler is for a BaseHTTPRequestHandler"
            ),
        ),
        (
            "async def handler(request): ...",
            (
                "line 1: a function named handler is no entry point, {}: name a WSGI or ASGI "
                "application app; handler is for a BaseHTTPRequestHandler"
            ),
        ),
        (
            "from api import Handler",
            (
                "line 1: an imported Handler is no entry point, {}: import it under another name, "
                "and derive `class Handler(…)` from it here"
            ),
        ),
    ],
)
def test_a_handler_that_is_no_class_statement(source: str, text: str) -> None:
    """Such a file becomes no function, and the remedy depends on what it holds."""
    assert problems(source) == [text.format(NO_FUNCTION)]


@pytest.mark.parametrize(
    ("source", "line", "name", "around"),
    [
        ("if DEBUG:\n    app = Flask(__name__)", 2, "app", "if"),
        ("if DEBUG: ...\nelse:\n    application = Flask(__name__)", 3, "application", "if"),
        ("if DEBUG: ...\nelif TEST:\n    from main import app", 3, "app", "if"),
        ("try:\n    class handler(Base): ...\nfinally: ...", 2, "handler", "try"),
        ("try: ...\nexcept ImportError:\n    def app(a, b): ...", 3, "app", "try"),
        ("with settings():\n    app: Any = make()", 2, "app", "with"),
        ("for app in apps:\n    async def app(a, b, c): ...", 2, "app", "for"),
        ("match kind:\n    case 1:\n        app = make()", 3, "app", "match"),
        ("with a:\n    if b:\n        app = make()", 3, "app", "if"),
    ],
)
def test_a_definition_within_another_statement(
    source: str, line: int, name: str, around: str
) -> None:
    """The build looks at the top level alone."""
    assert problems(source) == [
        (
            f"line {line}: {name} is defined within `{around}`, where Vercel does not look, so it "
            "makes no function of the file: define it at the top level"
        )
    ]


@pytest.mark.parametrize(
    ("source", "line", "name"),
    [
        ("app, other = both()", 1, "app"),
        ("[other, application] = both()", 1, "application"),
        ("\nprint(app := make())", 2, "app"),
        ("if (app := make()): ...", 1, "app"),
    ],
)
def test_a_binding_that_the_build_does_not_see(source: str, line: int, name: str) -> None:
    """Unpacking, and assignments within an expression."""
    assert problems(source) == [
        (
            f"line {line}: {name} is bound in a way that Vercel does not see, so it makes no "
            f"function of the file: write `{name} = …` at the top level, as a statement of its own"
        )
    ]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "import app",
        "class app: ...",
        "class HANDLER(Base): ...",
        "def make():\n    app = Flask(__name__)\n    return app",
        "class Api:\n    app = None",
        "other, another = both()",
        "server = Flask(__name__)",
    ],
)
def test_nothing_that_looks_like_an_entry_point(source: str) -> None:
    """The build is as silent about a file that was never meant to be a function."""
    assert problems(source) == [NOTHING]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "application = Flask(__name__)\napp = DoowMiddleware(application)",
            (
                "line 2: app {} application of line 1, which comes first, without what app adds: "
                "write `application = …` here, too"
            ),
        ),
        (
            "\napp = FastAPI()\n\napplication = DoowMiddleware(app=app)",
            (
                "line 4: application {} app of line 2, which comes first, without what "
                "application adds: write `app = …` here, too"
            ),
        ),
        (
            "from main import app\napplication: Any = Sentry(DoowMiddleware(app))",
            (
                "line 2: application {} app of line 1, which comes first, without what "
                "application adds: write `app = …` here, too"
            ),
        ),
        (
            "def app(environ, start_response): ...\nmetered = doow.tracked(metric='calls')(app)",
            (
                "line 2: metered {} app of line 1, which comes first, without what metered adds: "
                "write `app = …` here, too"
            ),
        ),
        (
            "def app(environ, start_response): ...\nmetered = doow.tracked(app)",
            (
                "line 2: metered {} app of line 1, which comes first, without what metered adds: "
                "write `app = …` here, too"
            ),
        ),
        (
            "class Handler(Base): ...\n@doow.tracked\nclass handler(Handler): ...",
            (
                "line 3: class handler {} Handler of line 1, which comes first: give that one "
                "another name"
            ),
        ),
        (
            "app = FastAPI()\n@doow.tracked\nclass handler(Base): ...",
            "line 3: class handler {} app of line 1, which comes first: give that one another name",
        ),
        (
            "class Handler(Base): ...\nclass Api(Handler): ...\nhandler = doow.tracked(Api)",
            "line 3: handler {} Handler of line 1, which comes first: give that one another name",
        ),
    ],
)
def test_another_is_served_than_was_meant(source: str, text: str) -> None:
    """The first that the build finds counts, and the one that meters comes after it."""
    assert problems(source) == [text.format("is not served: Vercel serves")]


def test_several_mistakes_are_told_in_the_order_of_their_lines() -> None:
    """Each with its own line."""
    source = "if A:\n    app = make()\nhandler = doow.tracked(Api)\nif B:\n    app = make()\n"
    assert [text.split(":")[0] for text in problems(source)] == ["line 2", "line 3", "line 5"]


@pytest.mark.parametrize(
    ("source", "line"), [("app = 1\nclass handler(Base:\n", 2), ("app = 1\0", 1)]
)
def test_what_is_no_python(source: str, line: int) -> None:
    """Said with the line, where Python tells it."""
    [text] = problems(source)
    assert text.startswith(f"line {line}: this is no Python (")
    assert text.endswith("), so Vercel makes no function of it")
