"""A window of a real browser (Qt's Chromium), off any screen, that the tests speak to over DevTools.

It is run as a process of its own, with the port to listen on: `python tests/window.py 9222`.
"""

import os
import sys


def main() -> None:
    """Open an empty window and serve until standard input ends."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"  # root has none in a container
    os.environ["QTWEBENGINE_REMOTE_DEBUGGING"] = sys.argv[1]
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = "--remote-allow-origins=* --disable-gpu"
    from PyQt6.QtCore import QSocketNotifier, QUrl
    from PyQt6.QtWebEngineWidgets import QWebEngineView
    from PyQt6.QtWidgets import QApplication

    application = QApplication(sys.argv[:1])
    view = QWebEngineView()
    view.resize(1440, 900)
    view.show()
    view.load(QUrl("about:blank"))
    ended = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read)
    ended.activated.connect(application.quit)
    application.exec()


if __name__ == "__main__":
    main()
