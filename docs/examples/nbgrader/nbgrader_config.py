"""nbgrader's settings for this course."""

c = get_config()  # noqa: F821  (nbgrader hands it in)

c.CourseDirectory.course_id = "backpropagation"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("write this")'}
