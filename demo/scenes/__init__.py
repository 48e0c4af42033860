"""The scenes, in the order in which they play; each module has a `play(stage)`, and shares the stage that `setting` prepared."""
