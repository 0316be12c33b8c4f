"""Do the two engines agree?"""
