"""Dates and times as logs write them, so that they sort and compare; see Django's `FORMAT_MODULE_PATH`."""

DATE_FORMAT = SHORT_DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "Y-m-d H:i:s"
