"""What several test modules share: scenes, tiny data sets and trainings, golden numbers, the source as syntax trees.

Imported as ``support.NAME``. What only the tests of one folder share stays in that folder.
"""
